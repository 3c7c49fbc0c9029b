# cmake --install: the binaries, the libraries with their headers, and the package that find_package(Descent CONFIG)
# finds. Every library is exported as Descent::<name>; a user's own model links Descent::worker.
include(CMakePackageConfigHelpers)

get_property(libraries GLOBAL PROPERTY DESCENT_LIBRARIES)
get_property(binaries GLOBAL PROPERTY DESCENT_BINARIES)
set_target_properties(descent_proto PROPERTIES EXPORT_NAME proto)
list(APPEND libraries descent_proto)
if(DESCENT_GRPC)
  set_target_properties(descent_grpc PROPERTIES EXPORT_NAME grpc)
  list(APPEND libraries descent_grpc)
endif()

install(TARGETS ${binaries} RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
install(TARGETS ${libraries} EXPORT DescentTargets ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR}/descent)
# Headers without those that only our own sources include: gRPC's types stay inside.
install(DIRECTORY common worker server DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/descent
  FILES_MATCHING PATTERN "*.h" PATTERN "grpc_*.h" EXCLUDE PATTERN rpc EXCLUDE PATTERN process EXCLUDE PATTERN internal EXCLUDE)
install(DIRECTORY ${PROJECT_BINARY_DIR}/proto/descent DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/descent
  FILES_MATCHING PATTERN "*.pb.h" PATTERN "*.grpc.pb.h" EXCLUDE)
install(DIRECTORY proto/descent DESTINATION ${CMAKE_INSTALL_DATADIR}/descent/proto FILES_MATCHING PATTERN "*.proto")
install(DIRECTORY examples DESTINATION ${CMAKE_INSTALL_DATADIR}/descent)

set(package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/Descent)
install(EXPORT DescentTargets NAMESPACE Descent:: DESTINATION ${package_dir})
configure_package_config_file(cmake/DescentConfig.cmake.in ${PROJECT_BINARY_DIR}/DescentConfig.cmake
  INSTALL_DESTINATION ${package_dir})
write_basic_package_version_file(${PROJECT_BINARY_DIR}/DescentConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/DescentConfig.cmake ${PROJECT_BINARY_DIR}/DescentConfigVersion.cmake
  DESTINATION ${package_dir})
